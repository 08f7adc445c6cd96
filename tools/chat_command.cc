// Tools: `swaa chat`.

#include <cstdio>
#include <iostream>
#include <unistd.h>

#include "absl/flags/flag.h"
#include "tools/client.h"
#include "tools/commands.h"
#include "tools/delta_printer.h"

ABSL_FLAG(std::string, system, "", "a system message before the first turn");

namespace swaa::tools {
namespace {

void AddMessage(v1::Role role, const std::string& content, v1::ChatInput* chat) {
  v1::ChatMessage* message = chat->add_messages();
  message->set_role(role);
  message->set_content(content);
}

v1::ChatInput FreshConversation() {
  v1::ChatInput chat;
  const std::string system = absl::GetFlag(FLAGS_system);
  if (!system.empty()) AddMessage(v1::ROLE_SYSTEM, system, &chat);
  return chat;
}

absl::StatusOr<Generation> Answer(Client* client, const v1::GenerateRequest& request) {
  DeltaPrinter printer;
  return client->Generate(request, [&](const v1::TokenDelta& delta) { printer.Print(delta); });
}

// One turn; whether it was answered. A failed one leaves the conversation as it was.
bool Turn(Client* client, v1::GenerateRequest request, const std::string& line,
          v1::ChatInput* chat) {
  *request.mutable_chat() = *chat;
  AddMessage(v1::ROLE_USER, line, request.mutable_chat());
  absl::StatusOr<Generation> answer = Answer(client, request);
  std::printf("\n");
  if (!answer.ok()) {
    Fail("chat", answer.status());
    return false;
  }
  std::fprintf(stderr, "[%s]\n", CostLine(request, *answer).c_str());
  *chat = request.chat();
  // With its thinking: templates drop what they do not want of earlier turns.
  AddMessage(v1::ROLE_ASSISTANT, answer->text, chat);
  return true;
}

int Chat(const std::vector<std::string>& arguments) {
  absl::StatusOr<v1::GenerateRequest> request = RequestFromFlags();
  if (request.ok() && !arguments.empty()) {
    request = absl::InvalidArgumentError("\"" + arguments[0] + "\" is no flag; chat reads lines");
  }
  const absl::StatusOr<Connection> connection = ConnectionFromFlags();
  if (!request.ok() || !connection.ok()) {
    Fail("chat", request.ok() ? connection.status() : request.status());
    return 2;
  }
  Client client(*connection);
  const bool terminal = isatty(STDIN_FILENO) == 1;
  if (terminal) std::printf("A line is a message. /reset begins anew, /quit or Ctrl-D ends.\n");
  v1::ChatInput chat = FreshConversation();
  std::string line;
  bool all_answered = true;
  for (;;) {
    if (terminal) std::printf("> ");
    std::fflush(stdout);
    if (!std::getline(std::cin, line) || line == "/quit") break;
    if (line == "/reset") {
      chat = FreshConversation();
    } else if (!line.empty()) {
      all_answered = Turn(&client, *request, line, &chat) && all_answered;
    }
  }
  return all_answered ? 0 : 1;
}

}  // namespace

Command ChatCommand() {
  std::vector<std::string> flags = ClientFlagNames();
  flags.push_back("system");
  return {"chat",
          {.usage = "swaa chat [flags]",
           .summary = "Talks with a server's model on the terminal, turn by turn.",
           .flag_names = std::move(flags)},
          &Chat};
}

}  // namespace swaa::tools
