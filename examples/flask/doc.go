// Package flask contains a Python application, app.py, and a test of it with sluice.
package flask
