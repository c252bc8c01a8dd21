"""One contract (`engine.py`) and three engines. The trainer uses only the contract and knows no framework."""
