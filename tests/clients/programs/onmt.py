"""Digits read backwards: OpenNMT-py's two-way encoder (packed sequences) and its decoder, which steps through cells."""

import swap
import torch
from onmt.decoders.decoder import InputFeedRNNDecoder
from onmt.encoders.rnn_encoder import RNNEncoder
from onmt.models import NMTModel
from onmt.modules import Embeddings

BEGIN, PADDING, V = 10, 11, 12


def batch(generator, B=32):
    """Rows of digits, their lengths, and each row backwards after a mark."""
    lengths = torch.randint(5, 16, (B,), generator=generator).sort(descending=True).values
    source = torch.full((B, 15, 1), PADDING)
    target = torch.full((B, 16, 1), PADDING)
    target[:, 0] = BEGIN
    for row, length in enumerate(lengths.tolist()):
        source[row, :length, 0] = torch.randint(10, (length,), generator=generator)
        target[row, 1 : length + 1, 0] = source[row, :length, 0].flip(0)
    return source[:, : lengths.max()], lengths, target[:, : lengths.max() + 1]


def run():
    generator = torch.Generator().manual_seed(0)
    encoder = RNNEncoder("LSTM", True, 2, 128, 0.1, Embeddings(64, V, PADDING))
    decoder = InputFeedRNNDecoder("LSTM", True, 2, 128, embeddings=Embeddings(64, V, PADDING), dropout=0.1)
    model = swap.accelerate(NMTModel(encoder, decoder))
    generate = torch.nn.Linear(128, V)
    parameters = [*model.parameters(), *generate.parameters()]
    optimizer, losses = torch.optim.Adam(parameters, lr=2e-3), []
    for _ in range(25):
        source, lengths, target = batch(generator)
        out, _ = model(source, target, lengths)
        wanted = target[:, 1:, 0].flatten()
        loss = torch.nn.functional.cross_entropy(generate(out).flatten(end_dim=1), wanted, ignore_index=PADDING)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    source, lengths, _ = batch(generator)
    with torch.no_grad():  # greedy
        encoded, final, _ = model.encoder(source, lengths)
        model.decoder.init_state(source, encoded, final)
        last, scores = torch.full((len(source), 1, 1), BEGIN), []
        for step in range(15):
            out, _ = model.decoder(last, encoded, src_len=lengths, step=step)
            scores.append(generate(out))
            last = scores[-1].argmax(dim=2, keepdim=True)
    return {"losses": losses, "scores": torch.cat(scores, dim=1)}
