"""The web page: a Streamlit application that asks the endpoint for everything."""
