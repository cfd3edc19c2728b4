"""A model as a user names it, loaded: one bundle, or several as an ensemble."""

from glioflow.prediction import Ensemble, Predictor
from glioflow.tracking import Tracking


def open_model(model: str, *, tracking: Tracking | None = None) -> Predictor:
    """Load a model.

    Args:
        model: As `Tracking.find_bundle` takes it; several of them, separated by commas, answer as an ensemble.
        tracking: Where runs and versions are looked for; the default one where None.

    Raises:
        UserError: If one is not found, or they do not go together.
    """
    tracking = tracking or Tracking()
    members = [Predictor.load(tracking.find_bundle(name.strip())[0]) for name in model.split(",")]
    return members[0] if len(members) == 1 else Ensemble(members)
