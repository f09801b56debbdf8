"""Ray RLlib plug-ins for research on multi-agent exploration."""
