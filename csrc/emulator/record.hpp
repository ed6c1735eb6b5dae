// Records the calls of a program: order, arguments, results.
//
// A line is a JSON object: {"call": name, "args": [...], "result": number or text, "device": id or -1, "thread": number}.
// Pointers have names, so that two recordings of the same program are equal: "stream#2", "device 0 memory#5+64", "host",
// "pinned#1", "null". An argument that the call writes is recorded with its new value; dimensions are recorded as "2,3".
#pragma once

#include <string>

namespace ais::emulator {

bool recording();

// Starts a new recording, in memory. A path that is not "": lines are also appended to this file.
void start_recording(const std::string& path);
void stop_recording();
std::string recorded_calls();

void record_call(const char* function, const std::string& arguments, const std::string& result, int device);

// Returns `text` as a JSON string with quotes.
std::string json_quote(const std::string& text);

}  // namespace ais::emulator
