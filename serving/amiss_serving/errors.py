"""What can go wrong while serving. These know no transport: each door has one table for them."""

from amiss_export.errors import AmissError


class DetectorNotFound(AmissError):
    """No detector of that name, version or label is being served."""


class NoSuchMethod(AmissError):
    """The service has no method of that name."""


class TooLarge(AmissError):
    """The request holds more bytes or rows than the service takes at once."""


class QueueFull(AmissError):
    """The detector has as many rows waiting as it may; the caller may try again."""


class NotReady(AmissError):
    """The service has no detector, is draining or has stopped; another replica may answer."""


class DeadlineExceeded(AmissError):
    """The caller's time ran out before the answer was there."""


class Unauthenticated(AmissError):
    """The request carries no token, or not the right one."""


class CallerGone(AmissError):
    """The caller hung up before the answer was there."""


class SwitchedOff(AmissError):
    """The service was started without what the request asks for."""


class LoadFailed(AmissError):
    """A version that was asked for cannot be loaded; what served before serves on."""
