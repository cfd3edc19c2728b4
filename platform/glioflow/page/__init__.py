"""The page for people: a static application that runs in the browser and asks the endpoint for everything."""
