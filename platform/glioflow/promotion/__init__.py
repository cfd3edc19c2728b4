"""The way to `champion`: the gate, the record of every decision, and the way back."""

from glioflow.promotion.gate import promote, rollback
from glioflow.promotion.record import Reason, Verdict, decisions

__all__ = ["Reason", "Verdict", "decisions", "promote", "rollback"]
