"""The service beside its peers: the same ONNX model, machine and run, measured by compiled clients.

models.py makes the model, venvs.py the peers' environments, peers/ starts each server, doors.py
knows what they are asked, load.py asks, run.py takes the rounds, report.py makes the page.
"""
