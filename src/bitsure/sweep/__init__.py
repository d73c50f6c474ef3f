"""Many runs of one command.

`launch` composes, plans and starts them; `report` makes one result of what they leave; `dashboard` shows them in W&B.
"""
