#!/usr/bin/env python3
"""Makes data/quant_goldens.bin: random blocks of every tensor type and what they are in float32.

The oracle is the reference dequantisation of the PyPI package `gguf`. To run it again:

    python3 -m venv /tmp/goldens && /tmp/goldens/bin/pip install gguf==0.19.0 numpy
    /tmp/goldens/bin/python tests/parity/goldens/make_quant_goldens.py

The file is a sequence of records, little-endian: the type's GGUF number (uint32), the number of bytes of
blocks (uint32), the number of values (uint32), the blocks, the values (float32).
"""

import pathlib
import struct

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

TYPES = [
    Type.F16, Type.BF16, Type.Q8_0, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q4_K, Type.Q5_K,
    Type.Q6_K,
]

# Where each type keeps its half-precision scales, in bytes of a block.
HALF_SCALES = {
    Type.Q8_0: [0], Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2],
    Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208],
}


def random_blocks(rng, kind):
    """Random bytes in which every scale is a finite number of either sign, subnormals among them."""
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    if elements == 1:
        values = (rng.standard_normal(256) * 10.0 ** rng.integers(-7, 4, 256)).astype(np.float32)
        if kind == Type.F16:
            return values.astype(np.float16).view(np.uint8).reshape(1, -1)
        return (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8).reshape(1, -1)
    blocks = rng.integers(0, 256, (max(1, 512 // elements), size), dtype=np.uint8)
    for at in HALF_SCALES[kind]:
        scales = rng.standard_normal(len(blocks)).astype(np.float16)
        scales[0] = np.float16(3e-7)
        blocks[:, at:at + 2] = scales.view(np.uint8).reshape(-1, 2)
    return blocks


def main():
    rng = np.random.default_rng(20251)
    out = bytearray()
    for kind in TYPES:
        blocks = random_blocks(rng, kind)
        values = gguf.quants.dequantize(blocks, kind).astype(np.float32).reshape(-1)
        assert np.isfinite(values).all(), kind
        out += struct.pack("<III", int(kind), blocks.nbytes, values.size)
        out += blocks.tobytes() + values.tobytes()
    path = pathlib.Path(__file__).parent / "data" / "quant_goldens.bin"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(out)
    print(f"{path}: {len(out)} bytes, {len(TYPES)} types")


if __name__ == "__main__":
    main()
