"""The main job: a checkpoint and a recipe in, a folder of bundles, proof and a report out."""

from edgeq.deploy.run import DeployResult, check_parity, deploy

__all__ = ["DeployResult", "check_parity", "deploy"]
