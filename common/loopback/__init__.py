"""The loopback exchange: venues as servers, for tests, demonstrations and recordings."""
