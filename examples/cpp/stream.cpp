// Continues a prompt and prints the text as it comes.
//
//   stream BUNDLE "The history of the river" [NUMBER OF TOKENS]
#include <cstdlib>
#include <edgeq.hpp>
#include <iostream>
#include <string_view>

int main(int count, char **arguments) try {
  if (count < 3) {
    std::cerr << "usage: stream BUNDLE PROMPT [NUMBER OF TOKENS]\n";
    return 2;
  }
  edgeq::session session{edgeq::model(arguments[1])};
  edgeq::generation how;
  how.max_new_tokens = count > 3 ? std::atol(arguments[3]) : 40;
  session.generate(arguments[2], how, [](std::string_view piece) {
    std::cout << piece << std::flush;
    return true;  // false would end it
  });
  std::cout << '\n';
  return 0;
} catch (const std::exception &error) {
  std::cerr << error.what() << '\n';
  return 1;
}
