"""The backend: an HTTP interface to trainings. It knows the platform only by the `.env` contract."""
