"""The next letter of Python's own manual, a Trainer in float32 or, as variant, `bf16-mixed`."""

import pydoc_data.topics

import lightning
import swap
import torch
from torch.utils.data import DataLoader, TensorDataset


class Letters(lightning.LightningModule):
    def __init__(self, letters):
        super().__init__()
        self.embedding = torch.nn.Embedding(letters, 32)
        self.lstm = torch.nn.LSTM(32, 128, num_layers=2, batch_first=True)
        self.head = torch.nn.Linear(128, letters)
        self.losses = []

    def forward(self, ids):
        return self.head(self.lstm(self.embedding(ids))[0])

    def training_step(self, batch, index):
        loss = torch.nn.functional.cross_entropy(self(batch[0]).flatten(end_dim=1), batch[1].flatten())
        self.losses.append(loss.item())
        return loss

    def predict_step(self, batch, index):
        return self(batch[0]).float().softmax(dim=2)[:, -1]

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=2e-3)


def run(variant="32-true"):
    text = "".join(topic for _, topic in sorted(pydoc_data.topics.topics.items()))[: 64 * 32 * 40 + 1]
    letters = sorted(set(text))
    ids = torch.tensor([letters.index(letter) for letter in text])
    data = TensorDataset(ids[:-1].reshape(-1, 64), ids[1:].reshape(-1, 64))
    model = swap.accelerate(Letters(len(letters)))
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", precision=variant, logger=False, enable_progress_bar=False,
        enable_checkpointing=False, enable_model_summary=False)  # fmt: skip
    trainer.fit(model, DataLoader(data, batch_size=32, shuffle=True))
    probabilities = torch.cat(trainer.predict(model, DataLoader(data, batch_size=64)))
    return {"losses": model.losses, "probabilities": probabilities}
