// Package flask holds a Python application, app.py, and the test that it is
// served through sluice as it is.
package flask
