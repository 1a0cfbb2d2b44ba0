"""When things run: schedules, deliveries that arrive, and housekeeping. What runs is in ``assets``."""
