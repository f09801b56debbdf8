"""What a trained policy's estimates are worth beside what really follows; NumPy, no ray."""
