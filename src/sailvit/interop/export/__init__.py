"""Whole models and towers in layouts that stock tools load, each proved before it is there."""
