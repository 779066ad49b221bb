"""SO8T: an unattended pipeline that makes, proves and publishes a safety-aware model.

This package is the domain. It imports no Prefect and runs without it.
"""

__version__ = "0.1.0"
