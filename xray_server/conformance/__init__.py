"""The parts of the conformance suite; use ``xray_server.testing.StoreContract``, which is all of them."""
