"""The relay: it joins two connections, and cannot read what they carry."""
