import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as main.py does, before torch is loaded
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
