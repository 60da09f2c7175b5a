"""What the fork server of test gangs imports before its first fork: all that a zygote has ready for its ranks.

A rank without it asks a compiler what DeepSpeed can do here, and imports for itself: as long as a short training takes.
"""

from trainers.zygote import preload

preload()
