"""Results that travel: model, evaluations, ranked groups and export on the Hub, as the Hub reads them."""
