// Package openapitest compares an OpenAPI document with the API that it describes: with the
// answers of handlers, and with the Go types that they encode.
//
// openapi-3.1.json is the schema of such documents by the OpenAPI Initiative,
// https://spec.openapis.org/oas/3.1/schema/2022-10-07 (Apache License 2.0).
package openapitest
