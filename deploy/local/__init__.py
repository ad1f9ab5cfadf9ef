"""A real Kafka and a real Redis on this machine, without containers: `python -m deploy.local up`."""

from deploy.local.errors import NotInstalled, StackError
from deploy.local.stack import LocalStack

__all__ = ["LocalStack", "NotInstalled", "StackError"]
