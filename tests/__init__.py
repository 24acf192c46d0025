"""Tests of callme, in folders by kind; tests/unit mirrors the packages."""
