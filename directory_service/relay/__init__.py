"""The relay: it joins two ways that meet, and cannot read what they carry."""
