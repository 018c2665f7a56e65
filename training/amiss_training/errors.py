"""What can go wrong while a detector is trained."""

from amiss_export.errors import AmissError


class TrainingDiverged(AmissError):
    """The loss is no number any more; the message says what to change."""
