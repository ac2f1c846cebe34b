"""Phones: clients that speak once and vanish, in buffered asynchronous rounds, on simulated clocks."""

from fedcore.phones.buffer import FedBuff
from fedcore.phones.phone import Phone, crowd
from fedcore.phones.simulation import Moment, Run, buffered, synchronous

__all__ = ["FedBuff", "Moment", "Phone", "Run", "buffered", "crowd", "synchronous"]
