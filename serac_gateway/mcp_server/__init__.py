"""The edit API for agents, by the Model Context Protocol: they look up and propose, others decide."""
