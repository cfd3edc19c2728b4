"""nnU-Net's trainer with a budget of wall time in place of 1,000 epochs; found through `nnUNet_extTrainer`."""

import os
import time

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

PERIODS = 1000  # its own number of epochs, by which its schedule counts


class TrainerUntilDeadline(nnUNetTrainer):
    """Its polynomial schedule runs over the seconds until `PEER_DEADLINE`, a time since the epoch."""

    def on_train_epoch_start(self) -> None:
        """Set the learning rate by the time that has passed."""
        epoch, passed = self.current_epoch, (time.time() - self.began) / (self.deadline - self.began)
        self.current_epoch = min(PERIODS - 1, int(PERIODS * passed))
        self.lr_scheduler.step(self.current_epoch)
        self.current_epoch = epoch
        self.network.train()
        self.logger.log("lrs", self.optimizer.param_groups[0]["lr"], epoch)

    def run_training(self) -> None:
        """Train until the deadline, which is looked at after each batch."""
        self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 50, 5
        self.began, self.deadline = time.time(), float(os.environ["PEER_DEADLINE"])
        self.on_train_start()
        steps = 0
        while time.time() < self.deadline:
            self.on_epoch_start()
            self.on_train_epoch_start()
            outputs = []
            for _ in range(self.num_iterations_per_epoch):
                outputs.append(self.train_step(next(self.dataloader_train)))
                steps += 1
                if time.time() >= self.deadline:
                    break
            self.on_train_epoch_end(outputs)
            with torch.no_grad():
                self.on_validation_epoch_start()
                checked = [
                    self.validation_step(next(self.dataloader_val)) for _ in range(self.num_val_iterations_per_epoch)
                ]
                self.on_validation_epoch_end(checked)
            self.on_epoch_end()
        self.on_train_end()
        print(f"PEER_STEPS {steps}", flush=True)

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Leave out the prediction of the validation patients, which comes after the budget."""
