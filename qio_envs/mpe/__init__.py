"""The multi-agent particle environments: eight tasks, their configurations and scripted policies."""

from qio_envs.mpe.adversary import Adversary, AdversaryConfig
from qio_envs.mpe.config import ParticleConfig
from qio_envs.mpe.crypto import Crypto, CryptoConfig
from qio_envs.mpe.env import ParticleEnv
from qio_envs.mpe.policies import PlannedPolicy
from qio_envs.mpe.push import Push, PushConfig
from qio_envs.mpe.reference import Reference, ReferenceConfig
from qio_envs.mpe.speaker_listener import SpeakerListener, SpeakerListenerConfig
from qio_envs.mpe.spread import Spread, SpreadConfig
from qio_envs.mpe.tag import Tag, TagConfig
from qio_envs.mpe.world_comm import WorldComm, WorldCommConfig

__all__ = [
    "Adversary",
    "AdversaryConfig",
    "Crypto",
    "CryptoConfig",
    "ParticleConfig",
    "ParticleEnv",
    "PlannedPolicy",
    "Push",
    "PushConfig",
    "Reference",
    "ReferenceConfig",
    "SpeakerListener",
    "SpeakerListenerConfig",
    "Spread",
    "SpreadConfig",
    "Tag",
    "TagConfig",
    "WorldComm",
    "WorldCommConfig",
]
