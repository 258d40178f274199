"""The parity room: from bytes and Content-Type to JSON, the same code in kernel, gateway and replica."""
