"""Sounds: WAV files by the standard library, their spectrum by NumPy, and a net.

    python examples/spoken_words.py [folder]

The folder has one folder for each word, with its recordings: `yes/1.wav`, `no/1.wav`, ... Without one, chirps that
rise, fall, or do one after the other are made up. A recording becomes 8 x 24 numbers: the logarithm of the energy in 24
bands, evenly spaced in pitch as the ear hears it (mel), in 8 parts of its time.
"""

from __future__ import annotations

import sys
import tempfile
import wave
from pathlib import Path

import numpy as np

import minidl
from minidl.layers import Dense, Dropout, Flatten, Input, Normalization

PARTS, BANDS = 8, 24


def read_wav(path):
    """(samples in [-1, 1], their number a second); several channels are averaged."""
    with wave.open(str(path)) as file:
        if file.getsampwidth() != 2:
            raise ValueError(f"{path} must have 16 bits a sample, got {8 * file.getsampwidth()}")
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, file.getnchannels())
        return samples.mean(axis=1) / 32768, file.getframerate()


def mel_bands(rate, bins):
    """(bins, BANDS): triangles over the frequencies from 0 to rate / 2, evenly spaced in mel."""
    corners = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + rate / 1400), BANDS + 2) / 2595) - 1)
    hertz = np.linspace(0, rate / 2, bins)[:, np.newaxis]
    rising = (hertz - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - hertz) / (corners[2:] - corners[1:-1])
    return np.clip(np.minimum(rising, falling), 0, 1)


def features(path):
    """(PARTS, BANDS) float32 of one recording, from windows of 32 ms every 10 ms."""
    samples, rate = read_wav(path)
    length, step = rate * 32 // 1000, rate // 100
    if len(samples) < length + (PARTS - 1) * step:
        raise ValueError(f"{path} must last 0.11 s at least, got {len(samples) / rate:.2f} s")
    windows = np.lib.stride_tricks.sliding_window_view(samples, length)[::step] * np.hanning(length)
    power = np.abs(np.fft.rfft(windows)) ** 2
    energy = np.log(power @ mel_bands(rate, power.shape[1]) + 1e-4)
    return np.array([part.mean(axis=0) for part in np.array_split(energy, PARTS)], np.float32)


def make_up(folder, count, rng, rate=8000):
    """Write ``count`` chirps of each kind, of random pitch, length and loudness, in noise."""
    for word, bends in {"rise": (1, 1), "fall": (-1, -1), "hill": (1, -1), "valley": (-1, 1)}.items():
        (folder / word).mkdir(parents=True)
        for number in range(count):
            half = int(rate * rng.uniform(0.2, 0.4))
            pitch = rng.uniform(300, 900) * 2 ** np.cumsum(
                np.repeat(bends, half) * rng.uniform(0.5, 1) / half
            )
            sound = rng.uniform(0.1, 0.5) * np.sin(2 * np.pi * np.cumsum(pitch) / rate)
            sound += rng.normal(scale=0.1, size=2 * half)
            with wave.open(str(folder / word / f"{number}.wav"), "wb") as file:
                file.setparams((1, 2, rate, 0, "NONE", ""))
                file.writeframes((np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes())


def main(folder=None, count=60, epochs=40, verbose=0):
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as made_up:
        if folder is None:
            folder = made_up
            make_up(Path(folder), count, rng)
        paths = sorted(Path(folder).glob("*/*.wav"))
        if not paths:
            raise ValueError(f"folder must hold WORD/NAME.wav, got {folder} without any")
        x = np.array([features(path) for path in paths])
    words, y = np.unique([path.parent.name for path in paths], return_inverse=True)
    test, train = np.split(rng.permutation(len(x)), [len(x) // 4])

    layers = [Input((PARTS, BANDS)), Normalization(), Flatten(), Dense(64, "relu"), Dropout(0.3)]
    model = minidl.Sequential([*layers, Dense(len(words), "softmax")], seed=0)
    model.layers[0].adapt(x[train])
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    model.fit(x[train], y[train], epochs=epochs, verbose=verbose)

    answers = model.predict(x[test], verbose=0).argmax(axis=1)
    print(f"{len(train)} recordings to learn from, {len(test)} others to test")
    for number, word in enumerate(words):
        of_word = y[test] == number
        print(f"{word:<12} {(answers[of_word] == number).sum():>4} of {of_word.sum()} right")
    return (answers == y[test]).mean()


if __name__ == "__main__":
    main(*sys.argv[1:2])
