"""The page for supervisors: `callmood dashboard`. It reads the results in Redis, and writes only claims of alerts.

`rows` selects the fields of a call that are shown, `floor` reads Redis, `app` answers requests, `server` runs them;
`static` is the page itself.
"""
