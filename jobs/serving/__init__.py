"""Behind `affuse serve`: the queue and its workers, the guard at the door, the HTTP interface, the page."""
