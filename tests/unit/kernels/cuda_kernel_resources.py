#!/usr/bin/env python3
"""Registers and stack of the CUDA kernels in object files, against a list of limits.

cuda_kernel_resources.py LIMITS OBJECT...

A kernel that spills, or takes more registers than its launch was planned for, is right and slow; no
other test sees it. The objects' device code must not be compressed. LIMITS has lines
`NAME REGISTERS STACK_BYTES`, # for comments; NAME is the kernel's name without its template arguments.
"""

import re
import struct
import sys

EM_CUDA = 190
EIATTR_FRAME_SIZE, EIATTR_REGCOUNT = 0x11, 0x2F
FORMAT_SIZED = 4  # the attribute's value follows; all others lie in the header
STT_FUNC = 2


def read_limits(path):
    limits = {}
    for line in open(path, encoding="utf-8"):
        words = line.split("#")[0].split()
        if words:
            name, registers, stack = words
            limits[name] = (int(registers), int(stack))
    return limits


def c_string(data, offset):
    return data[offset : data.index(b"\0", offset)].decode()


def sections(elf):
    """{name: (offset, size)} of a 64-bit ELF image."""
    (header_offset,) = struct.unpack_from("<Q", elf, 0x28)
    entry_size, count, names_index = struct.unpack_from("<HHH", elf, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", elf, header_offset + i * entry_size) for i in range(count)]
    names = headers[names_index][4]
    return {c_string(elf, names + h[0]): (h[4], h[5]) for h in headers}


def kernels(elf):
    """(architecture, mangled name, registers, stack bytes) of each function of a cubin."""
    (flags,) = struct.unpack_from("<I", elf, 0x30)
    found = sections(elf)
    symbols, strings = found[".symtab"][0], found[".strtab"][0]
    values = {}
    offset, size = found[".nv.info"]
    end = offset + size
    while offset < end:
        kind, attribute, length = struct.unpack_from("<BBH", elf, offset)
        offset += 4
        if kind != FORMAT_SIZED:
            continue
        if attribute in (EIATTR_FRAME_SIZE, EIATTR_REGCOUNT):
            symbol, value = struct.unpack_from("<II", elf, offset)
            values.setdefault(symbol, {})[attribute] = value
        offset += length
    for symbol, attributes in sorted(values.items()):
        name_offset, info = struct.unpack_from("<IB", elf, symbols + 24 * symbol)
        if info & 0xF == STT_FUNC and EIATTR_REGCOUNT in attributes:
            yield (
                (flags >> 8) & 0xFF,
                c_string(elf, strings + name_offset),
                attributes[EIATTR_REGCOUNT],
                attributes.get(EIATTR_FRAME_SIZE, 0),
            )


def cubins(data):
    position = data.find(b"\x7fELF")
    while position >= 0:
        if struct.unpack_from("<H", data, position + 18)[0] == EM_CUDA:
            yield data[position:]
        position = data.find(b"\x7fELF", position + 4)


def main():
    limits = read_limits(sys.argv[1])
    unused, failures, count = set(limits), [], 0
    for path in sys.argv[2:]:
        data = open(path, "rb").read()
        if b".nv_fatbin" not in data:
            continue  # host code only
        images = list(cubins(data))
        if not images:
            failures.append(f"{path}: no device code found; was it compressed?")
        for image in images:
            for architecture, mangled, registers, stack in kernels(image):
                count += 1
                matches = [n for n in limits if re.search(rf"\d{n}(?![a-z])", mangled)]
                print(f"sm_{architecture} {mangled}: {registers} registers, {stack} bytes of stack")
                if len(matches) != 1:
                    failures.append(f"{mangled}: has {len(matches)} limits in {sys.argv[1]}; give it one")
                    continue
                unused.discard(matches[0])
                most_registers, most_stack = limits[matches[0]]
                if registers > most_registers:
                    failures.append(f"sm_{architecture} {mangled}: {registers} registers > {most_registers}")
                if stack > most_stack:
                    failures.append(f"sm_{architecture} {mangled}: {stack} bytes of stack > {most_stack}: it spills")
    for name in sorted(unused):
        failures.append(f"{name}: in {sys.argv[1]}, but in no object")
    if count == 0:
        failures.append("no kernel was checked")
    for failure in failures:
        print("FAILED:", failure)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
