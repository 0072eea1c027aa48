"""Makes a RayService of each Model, and tells in the Model's status how it does."""
