"""The errors every room raises. They know no transport: each door has its own table."""


class AmissError(Exception):
    """Something the caller can read: what was expected, what arrived, what to do."""


class BadInput(AmissError):
    """The data, the file or the setting the caller gave cannot be used as it is."""


class TooFewRows(BadInput):
    """The rows cannot support what was asked of them."""


class BundleNotFound(AmissError):
    """No bundle of that name, version or label is in the models folder."""


class BundleRefused(AmissError):
    """A bundle is on disk but must not be loaded: altered, incomplete or unsafe."""


class ParityFailed(AmissError):
    """The exported graph does not compute what the trained detector computes."""
