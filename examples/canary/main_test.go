package main

import (
	"strings"
	"testing"

	"sluice/test/long"
)

func TestRelease(t *testing.T) {
	long.Test(t)
	var out strings.Builder
	err := run(t.Context(), &out)
	t.Log(out.String())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "of the baseline") {
		t.Error("no verdict at the end")
	}
}
