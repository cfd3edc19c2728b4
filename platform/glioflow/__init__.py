"""GlioFlow: honest brain tumor segmentation by patient, on Ray and MLflow. Research software, not for clinical use."""

__version__ = "0.1.0"
