"""The machine and the packages that a result was made with."""

from typing import Any

import torch


def environment() -> dict[str, Any]:
    """What a result's reader wants to know of the machine and the packages."""
    import platform

    import accelerate

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "accelerate": accelerate.__version__,
        "threads": torch.get_num_threads(),
        "processor": platform.machine(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
