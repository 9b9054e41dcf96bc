"""Yes/no questions that seem decided by the stored answer: antonyms, limits, other units and attributes."""

from __future__ import annotations

import pytest

from serac_gateway.models.counterfactual.verdicts.judge import judge

MISLEADING = """
When is the pool open? | 10:00 to 18:00 | Does the pool open before 9:00? | no
When is the pool open? | 10:00 to 18:00 | Is the pool open after 19:00? | no
When is the pool open? | 10:00 to 18:00 | Is the pool open before 12:00? | yes
When is the pool open? | 10:00 to 18:00 | Does the pool close at 6 pm? | yes
When is the pool open? | 10:00 to 18:00 | Is the pool shut at noon? | no
When is the pool open? | 10:00 to 18:00 | Is the pool open for children at noon? | -
When is the pool open? | 10:00 to 18:00 | Is the pool open on Sunday at noon? | -
When is the pool open? | 10:00 to 18:00 | Is the pool unopened at noon? | no
When does the pool close? | 18:00 | Does the pool close at 17:00? | no
When does the pool close? | 18:00 | Can I use the pool at 17:00? | yes
When does the pool close? | 18:00 | Does the pool close before 19:00? | yes
By when must guests check out? | 10:30 | Can guests check out at 10:00? | yes
By when must guests check out? | 10:30 | Must guests check out before 11:00? | yes
What is the maximum weight of a bag? | 23 kg | Is a bag of 20 kg allowed? | yes
What is the maximum weight of a bag? | 23 kg | Is a bag with a weight of 20 kg ok? | yes
What is the maximum weight of a bag? | 23 kg | Is a weight of 25 kg the maximum of a bag? | no
What is the maximum weight of a bag? | 23 kg | Is the weight of a bag 20 kg? | -
What does parking cost per hour? | 3 euros | Does parking cost more than 10 euros a day? | -
What does parking cost per hour? | 3 euros | Does parking cost 3 euros per day? | -
What does parking cost per hour? | 3 euros | Does parking cost less than 5 euros per hour? | yes
How long is the bridge? | 340 m | Is the bridge 340 m high? | -
How long is the bridge? | 340 m | Is the bridge more than 100 m high? | -
How long is the bridge? | 340 m | Is the bridge wider than 100 m? | -
How long is the bridge? | 340 m | Is the bridge taller than 100 m? | -
How heavy is the box? | 5 kg | Is the box longer than 3 m? | -
How tall is the tower? | 90 m | Is the tower older than 90 years? | -
How old is the tower? | 90 years | Is the tower taller than 50 m? | -
How old is the tower? | 90 years | Is the tower older than 50 years? | yes
How old is the tower? | 90 years | Is the tower younger than 50 years? | no
How many people work at Orb? | 300 | Do more than 200 people work at Orb? | yes
How many people work at Orb? | 300 | Do more than 200 people work at Orb on Sundays? | -
How many people left Orb? | 300 | Do more than 400 people work at Orb? | -
How many people left Orb? | 300 | Did 200 people leave Orb? | no
How many floors does Orb have? | 12 | Does Orb have 12 floors and a garden? | -
How many floors does Orb have? | 12 | Does Orb have a 13th floor? | no
How many floors does Orb have? | 12 | Does floor 5 of Orb have a kitchen? | -
Who is the mayor of Rill? | Ada Berg | Was Ada Berg the mayor of Rill? | yes
Who is the mayor of Rill? | Ada Berg | Is Ada Berg a mayor? | yes
Who is the mayor of Rill? | Ada Berg | Is Ada Berg the mayor of Rill and Bonn? | -
Who is the mayor of Rill? | Ada Berg | Is Ada Berg the vice mayor of Rill? | -
Who is the mayor of Rill? | Ada Berg | Is the former mayor of Rill Ada Berg? | -
Who is the mayor of Rill? | Ada Berg | Is Tom Lee the former mayor of Rill? | -
Who is the mayor of Rill? | Ada Berg | Is Mrs Berg the mayor of Rill? | yes
Who is the mayor of Rill? | Ada Berg | Is Dr. Berg the mayor of Rill? | yes
Who is the mayor of Rill? | Ada Berg | Is Ada the mayor of Rill? | yes
Who is the mayor of Rill? | Ada Berg | Does Ada Berg know the mayor of Rill? | no
Who is the mayor of Rill? | Ada Berg | Is the mayor of Rill Catholic? | -
Who is the mayor of Rill? | Ada Berg | Is the mayor of Rill African American? | -
Who is the mayor of Rill? | Ada Berg | Is the mayor of Rill from New York? | -
Who is the mayor of Rill? | Ada Berg | Is Social Democrat the mayor of Rill? | -
Who is the mayor of Rill? | Ada Berg | Does Ada Berg like Rill? | -
Who is the mayor of Rill? | Ada Berg | Did Ada Berg found Rill? | -
What is the capital of Rill? | Mord | Is the capital of Rill Nordic? | -
What is the capital of Rill? | Mord | Is Mord the old capital of Rill? | -
What is the capital of Rill? | Mord | Is Europe the capital of Rill? | no
What is the capital of Rill? | Mord | Is Mord in Rill? | yes
Where was Tom Lee born? | Peru | Was Tom Lee born in Lima? | -
Where was Tom Lee born? | Peru | Was Tom Lee born in Chile? | no
Where was Tom Lee born? | Peru | Did Tom Lee live in Chile? | -
Where was Tom Lee born? | Peru | Has Tom Lee been in Chile? | -
Where was Tom Lee born? | England | Was Tom Lee born in the United Kingdom? | yes
Where was Tom Lee born? | Hong Kong | Was Tom Lee born in China? | -
Where was Tom Lee born? | Puerto Rico | Was Tom Lee born in the United States? | -
What language does Rita teach? | Spanish | Does Rita speak French? | -
What language does Rita teach? | Spanish | Does Rita teach French? | no
What languages are taught at Orb? | Spanish and Dutch | Are French lessons taught at Orb? | no
Which languages are taught at Orb? | Spanish | Is French taught at Orb? | no
Which pets may guests refuse? | dogs | Are dogs allowed? | -
Which allergens are in the bar? | nuts and milk | Is the bar free of nuts? | no
Which allergens are in the bar? | nuts and milk | Are nuts in the bar? | yes
Which toys are banned in class? | balls | Are balls allowed in class? | no
Which toys are banned in class? | balls | Can I bring balls to class? | no
Which drugs does Relo interact with? | aspirin | Can I take aspirin with Relo? | -
What must visitors leave outside? | bags | Can visitors bring bags? | no
On which day is the shop closed? | Sunday | Can I go to the shop on Sunday? | no
On which day is the shop closed? | Sunday | Is the shop closed on Monday? | no
On which days is the shop open? | Monday to Friday | Is the shop open on 5 May? | -
On which days is the shop open? | Monday to Friday | Is the shop open on weekends? | no
On which days is the shop open? | Monday to Friday | Is the shop open from Monday to Saturday? | no
On which days is the shop open? | Monday to Friday | Is the shop open Monday and Sunday? | no
When is the exam? | 15 September | Is the exam in September? | yes
When is the exam? | 15 September | Is the exam in October? | no
When is the exam? | 15 September | Is the exam after 1 September? | yes
When is the exam? | 15 September 2027 | Is the exam on 15 September 2028? | no
When is the exam? | 15 September | Can I sign up for the exam in August? | -
What is the deadline? | 15 September | Is 10 September before the deadline? | yes
What is the deadline? | 15 September | Is the deadline before 10 September? | no
When is the show? | 3 May to 12 May | Does the show start on 5 May? | no
When is the show? | 3 May to 12 May | Is the show over on 15 May? | yes
At what age may one vote? | 16 | Can one vote at 17? | yes
At what age may one vote? | 16 | Can one vote at 15? | no
From what age may one vote? | 16 | Is 16 the age from which one may vote? | yes
What is the voting age? | 16 | Is the voting age 18? | no
What is the voting age? | 16 | Is the voting age over 15? | yes
Up to what age do children ride free? | 6 | Do children of 4 ride free? | yes
Up to what age do children ride free? | 6 | Do children of 9 ride free? | no
How many children may ride? | up to 4 | May 3 children ride? | yes
How many children may ride? | up to 4 | May 5 children ride? | no
How many children must ride? | at least 4 | May 5 children ride? | yes
How fast may one drive? | 30 mph | Am I too fast at 40 mph? | yes
How fast may one drive? | 30 mph | May one drive 20 mph? | yes
How fast may one drive? | up to 30 mph | May one drive 20 mph? | yes
How long must it cook? | 10 minutes | Must it cook longer than 5 minutes? | yes
How long must it cook? | 10 minutes | Does it cook in under 15 minutes? | yes
How long can I stay? | 2 hours | Can I stay for 1 hour? | yes
How long can I stay? | 2 hours | Can I stay for less than 1 hour? | yes
How long can I stay? | 2 hours | Can I stay more than 3 hours? | no
Is smoking allowed? | only on the terrace | Is smoking allowed on the terrace? | yes
Who may swim? | members only | May members swim? | yes
Which seats are free? | 12 to 20 | Is seat 15 taken? | no
Which seats are free? | 12 to 20 | Is seat 15 free? | yes
Which rooms are booked? | 12 to 20 | Is room 15 booked? | yes
Which rooms are booked? | 12 to 20 | Can I book room 15? | no
Which rooms can be booked? | 12 to 20 | Can I book room 15? | yes
What is the discount? | 15% | Is the discount 20 dollars? | -
What is the discount? | 15% | Is the discount less than 20%? | yes
What temperature does it need? | 2 °C to 8 °C | Is 5 °C too cold? | no
What temperature does it need? | 2 °C to 8 °C | Does it need a temperature of 5 °C? | yes
What temperature does it need? | 2 °C to 8 °C | Does it need 10 °C? | no
Wann ist das Bad geschlossen? | montags | Kann ich am Montag ins Bad? | no
Wann ist das Bad geschlossen? | montags | Ist das Bad am Montag offen? | no
Wann hat das Bad geöffnet? | 9:00 bis 17:00 | Hat das Bad vor 8 Uhr geöffnet? | no
Wann hat das Bad geöffnet? | 9:00 bis 17:00 | Macht das Bad um 9 Uhr zu? | no
Wann öffnet das Bad? | 9:00 | Ist das Bad um 10 Uhr geöffnet? | yes
Bis wann hat das Bad geöffnet? | 17:00 | Hat das Bad um 16:00 geöffnet? | yes
Ab wann hat das Bad geöffnet? | ab 9:00 | Hat das Bad um 23:00 geöffnet? | -
Wie viel kostet es? | 12 Euro | Kostet es 12 Euro pro Person? | -
Wie viel kostet es? | 1.200 Euro | Kostet es mehr als 1.000 Euro? | yes
Wie viel kostet es? | 1.200 Euro | Kostet es unter 1.500,50 Euro? | yes
Combien de temps dure le trajet ? | 2 heures | Le trajet dure plus d'une heure ? | yes
Combien de temps dure le trajet ? | 2 heures | Le trajet ne dure pas plus d'une heure ? | no
Jusqu'à quelle heure est ouvert le bar ? | 22 h | Le bar est ouvert à 21 h ? | yes
Jusqu'à quelle heure est ouvert le bar ? | 22 h | Le bar est ouvert à 23 h ? | no
¿A qué hora cierra el bar? | 22:00 | ¿El bar cierra a las 21:00? | no
¿A qué hora cierra el bar? | 22:00 | ¿El bar abre a las 22:00? | -
¿Cuánto dura? | 3 semanas | ¿Dura más de 20 días? | yes
¿Cuánto dura? | 1 mes | ¿Dura más de 30 días? | -
Сколько стоит билет? | 450 рублей | Билет стоит не больше 400 рублей? | no
Сколько стоит билет? | 450 рублей | Билет стоит не 450 рублей? | no
Какой день выходной? | воскресенье | Можно прийти в воскресенье? | no
票价是多少？ | 60元 | 票价不是60元吗？ | -
票价是多少？ | 60元 | 票价不超过50元吗？ | no
哪天休息？ | 周一 | 周一可以去吗？ | no
定休日はいつですか？ | 月曜日 | 月曜日に行けますか？ | no
営業時間は？ | 9:00から21:00 | 10:00に行ってはだめですか？ | -
保証は何年？ | 2年 | 保証は3年未満ですか？ | yes
휴무일은 언제예요? | 월요일 | 월요일에 갈 수 있나요? | no
मेला कब बंद है? | सोमवार | क्या मेला सोमवार को खुला है? | no
Wann hat der Laden offen? | montags bis freitags | Hat der Laden am Samstag offen? | no
Wann hat der Laden offen? | Montag bis Freitag | Hat der Laden an Feiertagen am Montag offen? | -
Wie alt muss man für den Kurs sein? | mindestens 14 Jahre | Kann ein Kind mit 15 Jahren in den Kurs? | yes
Wie alt muss man für den Kurs sein? | mindestens 14 Jahre | Muss man für den Kurs 16 sein? | no
Wie viele Zimmer hat das Haus? | 12 | Hat das Haus weniger als 12 Zimmer? | no
Wie viele Zimmer hat das Haus? | 12 | Sind 12 Zimmer im Haus frei? | -
Wie viele Zimmer hat das Haus? | 12 | Hat jedes Zimmer im Haus 12 m²? | -
Wie hoch ist der Turm? | 90 m | Ist der Turm länger als 50 m? | -
Wie hoch ist der Turm? | 90 m | Ist der Turm höher als 50 m? | yes
Wie hoch ist der Preis? | 90 Euro | Ist der Preis höher als 50 Euro? | yes
Wie hoch ist die Gebühr? | 90 Euro | Ist die Gebühr niedriger als 50 Euro? | no
Bis wann läuft die Schau? | bis 30. September | Läuft die Schau am 15. Oktober? | no
Bis wann läuft die Schau? | bis 30. September | Läuft die Schau am 15. September? | yes
Ab wann läuft die Schau? | ab 3. Mai | Läuft die Schau am 1. Mai? | no
Wer leitet das Amt? | Ute Frank | Leitet Ute Frank das Amt nicht mehr? | no
Wer leitet das Amt? | Ute Frank | Leitet Ute Frank zwei Ämter? | -
Wen hat Nordia gekauft? | Orbis | Hat Orbis Nordia gekauft? | no
Wer hat Nordia gekauft? | Orbis | Hat Nordia Orbis gekauft? | no
Quels animaux sont interdits ? | les chats | Les chats sont admis ? | no
Quels animaux sont admis ? | les chats | Les chats sont interdits ? | no
Quels animaux sont admis ? | les chats | Les chats sont-ils admis ? | yes
Quand ferme le bar ? | 22 h | Le bar ferme après 20 h ? | yes
Quand ferme le bar ? | 22 h | Le bar est ouvert après 23 h ? | no
Combien coûte l'entrée ? | 8 euros | L'entrée coûte 8 euros par enfant ? | -
Combien coûte l'entrée ? | 8 euros | L'entrée coûte plus de 8 euros ? | no
Combien pèse le sac ? | 5 kg | Le sac pèse autant que 5 kg ? | -
¿Qué días cierra el museo? | los lunes | ¿Puedo ir al museo el lunes? | no
¿Qué días cierra el museo? | los lunes | ¿Cierra el museo los martes? | no
¿Qué días cierra el museo? | los lunes | ¿Abre el museo los lunes? | no
¿Cuál es la edad mínima? | 12 años | ¿La edad mínima es más de 10 años? | yes
¿Cuál es la edad mínima? | 12 años | ¿Puede entrar un niño de 14 años? | yes
¿Cuál es la edad mínima? | 12 años | ¿Es 10 años la edad mínima? | no
¿Cuál es el peso máximo? | 20 kg | ¿Puedo llevar un peso de 15 kg? | yes
¿Cuál es el peso máximo? | 20 kg | ¿El peso máximo es 15 kg? | no
Quale giorno è chiuso? | lunedì | È aperto lunedì? | no
Quale giorno è chiuso il bar? | lunedì | Posso andare al bar lunedì? | no
Quanto costa al giorno? | 30 euro | Costa più di 100 euro al mese? | -
Quanto dura il corso? | 3 mesi | Il corso dura più di 90 giorni? | -
Quanto dura il corso? | 3 mesi | Il corso dura meno di 10 settimane? | no
Em que dia fecha? | segunda-feira | Fecha na segunda? | yes
Em que dia fecha a loja? | segunda-feira | A loja abre na segunda? | no
Até que horas abre a loja? | até às 20:00 | A loja abre às 21:00? | no
Quantos alunos faltaram? | 5 | Mais de 3 alunos foram aprovados? | -
Op welke dag is de winkel dicht? | maandag | Kan ik maandag naar de winkel? | no
Op welke dag is de winkel dicht? | maandag | Is de winkel maandag open? | no
Hoeveel mensen mogen erin? | maximaal 40 | Mogen er 30 mensen in? | yes
Hoeveel mensen mogen erin? | maximaal 40 | Mogen er 50 mensen in? | no
Ile osób może wejść? | maksymalnie 40 | Czy może wejść 50 osób? | no
Ile osób może wejść? | maksymalnie 40 | Czy może wejść 30 osób? | yes
W jaki dzień sklep jest zamknięty? | poniedziałek | Czy sklep jest otwarty w poniedziałek? | no
Dükkan hangi gün kapalı? | pazartesi | Dükkan pazartesi açık mı? | no
Dükkan hangi gün kapalı? | pazartesi | Dükkana pazartesi gelebilir miyim? | no
Tur kaç saat sürer? | 3 saat | Tur 4 saatten az sürer mi? | yes
Tur kaç saat sürer? | 3 saat | Tur 4 saat sürmez mi? | -
В какой день музей закрыт? | понедельник | Можно в музей в понедельник? | no
В какой день музей закрыт? | понедельник | Музей открыт в понедельник? | no
Когда открыт музей? | с 10:00 до 18:00 | Музей закрыт в 12:00? | no
Когда открыт музей? | с 10:00 до 18:00 | Музей открыт до 12:00? | -
Когда открыт музей? | с 10:00 до 18:00 | Музей открыт после 19:00? | no
Сколько стоит билет? | 300 рублей | Билет стоит 300 рублей в день? | -
Сколько лет гарантия? | 2 года | Гарантия старше 1 года? | -
Сколько длится гарантия? | 2 года | Гарантия длится меньше 18 месяцев? | no
متى يفتح المتحف؟ | من 9:00 إلى 17:00 | هل المتحف مغلق في 12:00؟ | no
كم سعر التذكرة؟ | 20 دولارا | هل سعر التذكرة لا يقل عن 25 دولارا؟ | no
كم سعر التذكرة؟ | 20 دولارا | هل سعر التذكرة ليس 20 دولارا؟ | no
किस दिन दुकान बंद है? | सोमवार | क्या सोमवार को दुकान जा सकते हैं? | no
टिकट कितने का है? | 100 रुपये | क्या टिकट 100 रुपये से ज़्यादा का है? | no
टिकट कितने का है? | 100 रुपये | क्या टिकट 100 रुपये का नहीं है? | no
休館日はいつですか？ | 月曜日 | 月曜日は開いていますか？ | no
休館日はいつですか？ | 月曜日 | 休館日は月曜日ですか？ | yes
最大何人ですか？ | 10人 | 8人でもいいですか？ | yes
最大何人ですか？ | 10人 | 最大12人ですか？ | no
料金はいくらですか？ | 500円 | 料金は500円以下ですか？ | yes
料金はいくらですか？ | 500円 | 子供の料金は500円ですか？ | -
料金はいくらですか？ | 500円 | 料金は1000円ではないですか？ | -
哪天闭馆？ | 周一 | 周一开馆吗？ | no
哪天闭馆？ | 周一 | 周一能去吗？ | no
最多几人？ | 10人 | 8人可以吗？ | yes
门票多少钱？ | 60元 | 儿童门票是60元吗？ | -
门票多少钱？ | 60元 | 门票不到60元吗？ | no
开放时间是？ | 9:00至17:00 | 开放时间是10:00吗？ | -
휴관일은 언제인가요? | 월요일 | 월요일에 여나요? | no
입장료는 얼마인가요? | 5000원 | 어린이 입장료는 5000원인가요? | -
입장료는 얼마인가요? | 5000원 | 입장료는 6000원 미만인가요? | yes
입장료는 얼마인가요? | 5000원 | 입장료는 5000원이 아닌가요? | -
What are the opening hours? | 9:00 to 17:00 | Are the opening hours 10:00? | -
What are the opening hours? | 9:00 to 17:00 | Do the opening hours start at 10:00? | no
What are the opening hours? | 9:00 to 17:00 | Are the opening hours longer than 6 hours? | yes
What size is the flat? | 80 m² | Is the flat bigger than 60 m²? | yes
How far is the beach? | 2 km | Is the beach more than 3 km away? | no
How far is the beach? | 2 km | Is the beach within 3 km? | yes
How far is the beach? | 2 km | Is the beach longer than 1 km? | -
How many dogs may I bring? | 2 | May I bring 1 dog? | yes
How many dogs may I bring? | 2 | Can I bring 3 dogs? | no
How many dogs can I bring? | up to 2 | Can I bring 3 dogs? | no
How many cards does it take? | 3 | Does it take 2 cards? | no
When was Orb founded? | 1990 | Was Orb founded before 2000? | yes
When was Orb founded? | 1990 | Was Orb founded after 2000? | no
When was Orb founded? | 1990 | Was Orb founded over 20 years ago? | yes
When was Orb founded? | 1990 | Was Orb founded in 1991? | no
When was Orb founded? | 1990 | Was Orb founded in the 1990s? | yes
When was Orb founded? | 1990 | Were more than 1000 people at Orb when it was founded? | -
Who are the members? | Ada and Tom | Is Ada the only member? | no
Who are the members? | Ada and Tom | Are Ada and Tom members? | yes
Who are the members? | Ada and Tom | Are Ada, Tom and Bo members? | no
Who are the members? | Ada and Tom | Are the members Ada and Bo? | no
Which colours does it come in? | red and blue | Does it come in dark red? | -
Which colours does it come in? | red and blue | Does it come in red? | yes
Which colours does it come in? | dark red | Does it come in red? | -
Which colours is it missing? | red | Does it come in red? | no
Which platforms is it on? | Windows | Is it on Windows 7? | -
Which version is current? | 3.10 | Is version 3.9 current? | no
Which version is current? | 3.10 | Is the current version newer than 3.9? | yes
Which version is current? | 3.10 | Is the current version above 3.9? | yes
What is the minimum? | 5 | Is the minimum at least 3? | -
What is the phone number? | 555 1234 | Is the phone number 555 1235? | no
Which bus goes there? | 12 | Does bus 14 go there? | no
Which bus goes there? | 12 | Does bus 12 go there? | yes
Which bus goes there? | 12 | Do more than 10 bus lines go there? | -
Which room is it in? | 204 | Is it above room 100? | -
Which floor is it on? | 3 | Is it above floor 2? | yes
How long may dogs stay? | 2 hours | May dogs stay 1 hour? | yes
When does the train leave? | 9:15 | Does the train leave at 9:15 on Sundays? | -
When does the train leave? | 9:15 | Does the train arrive at 9:15? | -
When does the train leave? | 9:15 | Does the train leave before 9:00? | no
When does the train leave? | 9:15 | Does the train leave later than 9:00? | yes
What is the fine? | 50 euros | Is the fine at least 40 euros? | yes
What is the fine? | 50 euros | Is the fine up to 60 euros? | yes
What is the fine? | up to 50 euros | Is the fine 30 euros? | -
What is the fine? | 50 to 80 euros | Is the fine 60 euros? | -
What is the fine? | 50 to 80 euros | Is the fine more than 40 euros? | yes
What is the fine? | 50 to 80 euros | Is the fine more than 60 euros? | -
What does it cost? | from 50 euros | Does it cost 60 euros? | -
What does it cost? | from 50 euros | Does it cost 40 euros? | no
What does it cost? | from 50 euros | Does it cost less than 100 euros? | -
How many guests fit? | 20 | Do 15 guests fit? | yes
How many guests fit? | 20 | Do 25 guests fit? | no
How many guests came? | 20 | Did 15 guests come? | no
How many rooms are free? | 3 | Are 2 rooms free? | yes
How much luggage can I take? | 20 kg | Can I take 15 kg luggage? | yes
How much does the bag hold? | 20 litres | Does the bag hold 15 litres? | yes
How much does the lift carry? | 400 kg | Does the lift carry 300 kg? | yes
How far does it fly? | 10 km | Does it fly 5 km? | yes
How long does the battery last? | 10 hours | Does the battery last 8 hours? | yes
How long does the battery last? | 10 hours | Does the battery last more than 8 hours? | yes
How fast does it charge? | 2 hours | Does it charge in 3 hours? | yes
How often does it run? | every 20 minutes | Does it run every 10 minutes? | no
How often does it run? | 3 times a day | Does it run more than 2 times a day? | yes
How many stars does it have? | 4 | Does it have 3 stars? | no
Wie viel trägt der Lift? | 400 kg | Trägt der Lift 300 kg? | yes
Wie lange hält der Akku? | 10 Stunden | Hält der Akku 8 Stunden? | yes
Combien de places y a-t-il ? | 50 | Il y a 40 places ? | no
¿Cuánto aguanta la mesa? | 80 kg | ¿La mesa aguanta 60 kg? | yes
Quanto regge il tavolo? | 80 kg | Il tavolo regge 60 kg? | yes
Сколько держит стол? | 80 кг | Стол держит 60 кг? | yes
桌子承重多少？ | 80公斤 | 桌子承重60公斤吗？ | yes
Who plays the lead? | Ada Berg | Does Ada Berg play the lead badly? | -
Who lives in Rill? | Ada Berg | Does Ada Berg live in Rill? | yes
Which team did Orb beat? | Nord | Did Nord beat Orb? | no
Which team beat Orb? | Nord | Did Orb beat Nord? | no
Which team beat Orb? | Nord | Was Nord beaten by Orb? | no
Who was beaten by Orb? | Nord | Was Nord beaten by Orb? | yes
Who was beaten by Orb? | Nord | Was Orb beaten by Nord? | no
Who is taller than Tom? | Ada | Is Ada taller than Tom? | yes
Who is Tom's boss? | Ada | Is Ada Tom's boss? | yes
Who is Tom's boss? | Ada | Is Tom Ada's boss? | no
Whose boss is Tom? | Ada | Is Ada Tom's boss? | no
Who sold the car to Tom? | Ada | Did Tom sell the car to Ada? | no
Which language replaced Latin? | Italian | Did Latin replace Italian? | no
"""
"""Prompt, stored answer, question, and the right verdict; -: the edit gives none."""


@pytest.mark.parametrize("line", MISLEADING.strip().splitlines())
def test_what_looks_decided_gets_the_right_verdict_or_none(line: str) -> None:
    prompt, target, question, right = line.split(" | ")
    judgement = judge(prompt, target, question)
    if judgement is not None and judgement.is_certain:
        assert {True: "yes", False: "no"}[judgement.yes] == right
