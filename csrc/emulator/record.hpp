// The calls a program made: order, arguments, results.
//
// A line is a JSON object: {"call": name, "args": [...], "result": number or text, "device": id or -1, "thread": number}.
// Pointers are named, so that two recordings of the same program are equal: "stream#2", "device 0 memory#5+64", "host",
// "pinned#1", "null". An argument that the call fills is written as what it was filled with, and dimensions as "2,3".
#pragma once

#include <string>

namespace ais::emulator {

bool recording();

// Starts anew. "" keeps the lines in memory only; a path also appends them to that file.
void start_recording(const std::string& path);
void stop_recording();
std::string recorded_calls();

void record_call(const char* function, const std::string& arguments, const std::string& result, int device);

// `text` as a JSON string with its quotes.
std::string json_quote(const std::string& text);

}  // namespace ais::emulator
