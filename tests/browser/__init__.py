"""Tests of the dashboard in a real Chromium, over both stores."""
