"""What every service needs: `settings` from one YAML file, JSON `logs`, and Prometheus `metrics`."""
