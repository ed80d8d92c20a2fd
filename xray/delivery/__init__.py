"""From records to the service: a bounded buffer, one worker thread, and transports."""
