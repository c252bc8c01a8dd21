"""One contract (`engine.py`) and the engines behind it. The trainer knows no framework, only the contract."""
