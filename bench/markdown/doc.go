// Package markdown writes the figures of a measurement as Markdown tables, and
// puts them into a document in place of an earlier one's.
package markdown
